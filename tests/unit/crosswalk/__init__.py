"""Tests of crosswalks."""
