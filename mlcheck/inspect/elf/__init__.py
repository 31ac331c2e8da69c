"""ELF files, and the dynamic loader's search for their libraries."""
