"""The files of an image: root file system, tree, layers, tar."""
