"""Thousands of damaged and hostile files for every reader."""
