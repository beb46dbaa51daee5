{{ recent_departures(entity=['carrier', 'origin'], prefix='carrier_origin') }}
