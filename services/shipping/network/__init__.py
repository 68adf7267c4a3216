"""The network that carries parcels: real places, dated lanes between them, and the plan of each order."""
