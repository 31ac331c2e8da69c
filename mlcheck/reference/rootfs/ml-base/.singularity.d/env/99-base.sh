#!/bin/sh
# Nothing: the host's libraries that an engine binds are told by the engine.
