/* A shared library with one function, which answers one text. */

__attribute__((visibility("default"))) const char *FUNCTION(void)
{
    return ANSWER;
}
