"""pytest: options, parametrisation, facts as fixtures, outcomes, reports."""
