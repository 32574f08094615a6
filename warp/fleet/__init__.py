"""What people see of a fleet: one picture for `status`, `top` and the web page.  Pure."""
