"""What tests share. tests/conftest.py makes fixtures of it."""
