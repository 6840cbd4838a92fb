"""A Django site in one file: requests through middleware, URL routing, the ORM (SQLite in memory), sessions and templates. Argument: about seconds."""
import sys

import django
from django.conf import settings

settings.configure(
    DEBUG=False, ALLOWED_HOSTS=['*'], ROOT_URLCONF=__name__, SECRET_KEY='k', USE_TZ=True, DEFAULT_AUTO_FIELD='django.db.models.AutoField',
    INSTALLED_APPS=['django.contrib.contenttypes', 'django.contrib.auth', 'django.contrib.sessions'],
    MIDDLEWARE=['django.contrib.sessions.middleware.SessionMiddleware', 'django.middleware.common.CommonMiddleware'],
    SESSION_ENGINE='django.contrib.sessions.backends.signed_cookies',
    DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}},
    TEMPLATES=[{'BACKEND': 'django.template.backends.django.DjangoTemplates',
                'OPTIONS': {'loaders': [('django.template.loaders.locmem.Loader', {
                    'base.html': '<html><head><title>{% block title %}{% endblock %}</title></head><body>{% block body %}{% endblock %}</body></html>',
                    'list.html': '{% extends "base.html" %}{% block title %}{{ visits }} visits{% endblock %}{% block body %}<table>{% for u in users %}'
                                 '<tr class="{% cycle "odd" "even" %}"><td>{{ forloop.counter }}</td><td>{{ u.username|upper }}</td>'
                                 '<td>{{ u.email|default:"-" }}</td></tr>{% empty %}<tr><td>none</td></tr>{% endfor %}</table>{% endblock %}'})]}}])
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402


def index(request):
    request.session['visits'] = request.session.get('visits', 0) + 1
    return render(request, 'list.html', {'users': User.objects.order_by('username')[:40], 'visits': request.session['visits']})


def change(request, pk):
    user = User.objects.get(pk=pk)
    user.first_name = request.POST['name']
    user.save()
    return JsonResponse({'id': user.pk, 'users': list(User.objects.filter(pk__lte=pk + 20).values('id', 'username', 'first_name')[:20])})


urlpatterns = [path('', index), path('users/<int:pk>/', change)]

call_command('migrate', verbosity=0)
User.objects.bulk_create([User(username='u%05d' % i, email='someone%d@example.org' % i) for i in range(200)])
client = Client()
total = 0
for i in range(max(1, int(150 * float(sys.argv[1])))):
    total += len(client.get('/').content) + len(client.post('/users/%d/' % (1 + i % 180), {'name': 'n%d' % i}).content)
print(total, User.objects.count())
