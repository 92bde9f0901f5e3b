/** The server lets only a module of this name, the one that its packages carry, talk to systemd. */
module org.elasticsearch.systemd {
    requires org.apache.lucene.analysis.common;
    requires org.apache.lucene.core;
    requires org.elasticsearch.base;
    requires org.elasticsearch.nativeaccess;
    requires org.elasticsearch.server;
    requires org.elasticsearch.xcontent;

    exports bank.lab to
        org.elasticsearch.server;
}
