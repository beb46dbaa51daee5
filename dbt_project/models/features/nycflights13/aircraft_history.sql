{{ delay_history(entity=['tailnum'], prefix='aircraft', daily=false) }}
