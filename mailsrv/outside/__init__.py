"""The one door to the world: interfaces, and the real machine behind them."""
