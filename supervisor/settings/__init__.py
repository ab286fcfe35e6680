"""Every setting of supervisor and keeper, read once into frozen values."""
