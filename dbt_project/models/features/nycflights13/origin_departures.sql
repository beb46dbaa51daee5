{{ recent_departures(entity=['origin'], prefix='origin') }}
