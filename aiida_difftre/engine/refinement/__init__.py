"""The objective of a refinement, and steps that lower it."""
