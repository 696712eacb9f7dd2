"""Devices, hosts and processes of one run."""
