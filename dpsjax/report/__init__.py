"""What people look at: records as tables, plots and pages."""
