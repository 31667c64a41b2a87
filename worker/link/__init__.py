"""The way to the hub: where it is, connections that are kept, registration, what its answers mean."""
