"""``turnpike``, with its periodic jobs run every moment: for journeys that wait for them."""

from app.cli.main import main
from app.jobs import schedule

schedule.GIVE_UP_EVERY_S = schedule.DELIVER_EVERY_S = 0.5

if __name__ == "__main__":
    main()
