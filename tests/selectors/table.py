"""Every selector, once. A new selector adds a row and inherits every contract."""

from dpsjax import selectors

SELECTORS = {
    "uniform": selectors.uniform,
    "dps": selectors.dps,
    "dps_entropy": lambda: selectors.dps(decay=0.7, entropy=0.05),
    "dps_local_5": lambda: selectors.dps(num_states=5, prior_alpha="local"),
    "dps_candidates": lambda: selectors.dps(candidates=24),
    "dps_then_mixed": lambda: selectors.chain(selectors.dps(), selectors.accept_mixed()),
}
