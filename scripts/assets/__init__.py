"""Makes what the package bundles."""
