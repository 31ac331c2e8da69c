#!/bin/sh
# Nothing: the image's own variables follow in 10-docker2singularity.sh.
