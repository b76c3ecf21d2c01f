"""The input of the integration tests."""

from tests.integration.conftest import argon_input

__all__ = ["argon_input"]
