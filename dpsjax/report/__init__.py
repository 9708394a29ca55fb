"""What people look at: records as tables, plots and pages."""

import dpsjax.extras.train  # says what is missing
