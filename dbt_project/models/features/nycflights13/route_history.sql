{{ delay_history(entity=['origin', 'dest'], prefix='route', daily=true) }}
