{{ delay_history(entity=['origin'], prefix='origin', daily=true) }}
