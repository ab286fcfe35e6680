"""How a setting is found and checked, and those that supervisor and workers share."""
