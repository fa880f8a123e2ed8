"""Generated from `proto/diplex/v1` by the build; only this file is kept in git."""
