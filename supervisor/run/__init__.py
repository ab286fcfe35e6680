"""Puts one supervisor together, starts it, and takes it apart."""
