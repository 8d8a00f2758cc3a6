"""Generated from protos/forebay/v1; made anew by `make stubs`."""
