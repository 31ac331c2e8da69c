/* Stand-in for NVIDIA's libcuda.so.1: answers what it was compiled to answer. It drives no device.
   Like the real one it shows no device where CUDA_VISIBLE_DEVICES is set to nothing. */

extern char *getenv(const char *name);

int cuInit(unsigned flags)
{
    char *visible = getenv("CUDA_VISIBLE_DEVICES");
    (void)flags;
    if (CRASH)
        __builtin_trap();
    if (INIT)
        return INIT;
    return visible && !*visible && !DEAF ? 100 : 0;
}

int cuDriverGetVersion(int *version)
{
    *version = VERSION;
    return 0;
}

int cuDeviceGetCount(int *count)
{
    *count = COUNT;
    return 0;
}

int cuDeviceGet(int *device, int index)
{
    *device = index;
    return 0;
}

int cuDeviceGetName(char *name, int size, int device)
{
    const char *said = "stand-in GPU ";
    int i = 0;
    (void)size;
    for (; said[i]; i++)
        name[i] = said[i];
    name[i] = (char)('0' + device);
    name[i + 1] = 0;
    return 0;
}

int cuDeviceGetUuid(unsigned char *uuid, int device)
{
    for (int i = 0; i < 16; i++)
        uuid[i] = (unsigned char)(16 * device + i);
    return 0;
}
