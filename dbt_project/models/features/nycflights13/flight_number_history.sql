{{ delay_history(entity=['carrier', 'flight_number'], prefix='flight_number', daily=false) }}
