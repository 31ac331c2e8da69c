#!/bin/sh
# Nothing: PATH stays as the image sets it.
