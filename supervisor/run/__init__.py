"""Puts one supervisor together, runs it, answers for it (status, readiness, the operator), and takes it apart."""
