"""Write an `image.toml` from a good image.

`found` reads the image, `infer` turns the findings into expectations, `document` writes them, and
`revision` removes expectations that the suite finds not to hold. Each remaining line has therefore
been judged on that image by the rule that will judge it on the next one.
"""
