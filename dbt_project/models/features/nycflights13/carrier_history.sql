{{ delay_history(entity=['carrier'], prefix='carrier', daily=true) }}
