"""What every service shares. Imports `schemas`, never a service."""
