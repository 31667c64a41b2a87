"""Object storages for which the hub signs: what they have in common (`base`), one file each, the desk before them."""
