"""An `image.toml` from a good image.

`found` reads the image, `infer` makes expectations of what was found, `document` writes them,
`settle` takes back what the suite itself finds not to hold. So each line that remains was judged
on that image by the check that will judge it on the next one.
"""
