"""DReX, CRANE and the baselines, with their settings; losses and graphs."""
