/* Stand-in for a header of ROOT in a reference image, whose stand-in compiler only looks for it. */
