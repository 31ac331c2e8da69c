/* Stand-in for zlib's header in a reference image, whose stand-in compiler only looks for it. */
