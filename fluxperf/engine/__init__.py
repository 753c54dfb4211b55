"""The engine: device -> ops -> model -> phases -> executors. FLUX.1 written once, run at every rung of the ladder."""
