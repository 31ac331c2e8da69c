#!/bin/sh
# The banner, when apptainer starts this image.
. /printme.sh
