"""The stream channel: rows as events on `requests.<solution>`, predictions as events on `predictions.<solution>`."""
