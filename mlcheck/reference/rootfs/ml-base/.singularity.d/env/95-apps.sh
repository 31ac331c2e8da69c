#!/bin/sh
# Nothing: there are no apps of SCIF in this image.
