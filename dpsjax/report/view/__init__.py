"""One page that shows runs: self-contained HTML, nothing is fetched when it is looked at."""
