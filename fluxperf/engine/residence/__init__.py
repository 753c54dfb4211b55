"""Memory mode: keeps some weights on the device within a budget, and streams the others in time."""
