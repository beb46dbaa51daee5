{{ delay_history(entity=['dest'], prefix='destination', daily=true) }}
