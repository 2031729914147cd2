"""Tests of looking samples up."""
