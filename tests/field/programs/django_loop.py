"""A Django site in one file: models in an in-memory SQLite, a template, a few hundred requests through the test client."""
import sys

import django
from django.conf import settings

settings.configure(
    DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="k", USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}])
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.template import Context, Template  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402

PAGE = Template("<ul>{% for u in users %}<li>{{ u.username|upper }} {{ u.email }}</li>{% endfor %}</ul>{{ visits }}")


def index(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(PAGE.render(Context({"users": User.objects.order_by("username")[:30], "visits": request.session["visits"]})))


def add(request):
    user = User(username="u%05d" % User.objects.count(), email="someone@example.org")
    user.save()
    return JsonResponse({"id": user.pk, "users": list(User.objects.values("id", "username")[:20])})


urlpatterns = [path("", index), path("add/", add)]

call_command("migrate", verbosity=0)
client = Client()
total = 0
for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 300):
    total += len(client.get("/").content) + len(client.post("/add/").content)
print(total, User.objects.count())
